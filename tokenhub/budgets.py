"""Which budgets a request draws on, in which period, and how much it may cost at most."""
