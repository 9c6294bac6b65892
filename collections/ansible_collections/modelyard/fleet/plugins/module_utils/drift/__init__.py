"""What runs against what is declared. Looks only: nothing here changes anything."""
