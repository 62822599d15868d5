"""What people read: text that a terminal may show, and the console that prints it."""
