"""What belongs to the process: its cores, its signals, its end."""
