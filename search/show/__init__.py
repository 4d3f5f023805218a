"""What people see of a search: a live board, a summary, a picture. It decides nothing."""
