"""How the server does at the bedside: how soon one answer comes, and what many clients at once do to it."""
