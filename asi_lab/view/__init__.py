"""What people and programs see of a lab: figures (leaderboard, status) and how they look (tables, page)."""
