"""How outputs are written: whole or not at all, through no link, and apart from what a command reads."""
