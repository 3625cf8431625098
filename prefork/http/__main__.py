"""`python -m prefork.http`: runs `prefork.http.main`, and does nothing else."""

from prefork.http.main import main

main()
