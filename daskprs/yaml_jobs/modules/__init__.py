"""What the scripts of commands can import besides what is installed."""
