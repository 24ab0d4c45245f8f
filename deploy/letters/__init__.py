"""Dead letters: listed, put right, sent again."""
