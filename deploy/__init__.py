"""How facematch is run: the command line, the local stack, migrations. Puts the other folders' parts together."""
