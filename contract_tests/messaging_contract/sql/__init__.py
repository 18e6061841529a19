"""What the clauses about the patterns on SQL work with: a database, tables of their own, and bank accounts in them."""
