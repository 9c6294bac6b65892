"""What can be seen on a managed host. Standard library only; nothing here changes anything."""
