"""`facematch encoder calibrate`: what an encoder is worth on photos of people who are known."""
