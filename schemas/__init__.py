"""The contracts: events, their envelope, topics, tables and settings. Imports nothing else of facematch."""
