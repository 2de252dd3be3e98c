"""Who may do what in the admin API: roles and what each may call."""
