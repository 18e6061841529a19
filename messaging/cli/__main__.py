"""`python -m messaging.cli`, for where the script is not on the path."""

from messaging.cli import main

main()
