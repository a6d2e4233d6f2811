"""One file per committed result; nothing imports this room."""
