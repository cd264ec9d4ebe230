# Shorthand for the scripts in .ci, which need no make.
.PHONY: env check lint test fmt demo clean

env:    ## .venv, made once and again when pyproject.toml or pins.txt change
	@sh .ci/env

check:  ## all that a change must pass, with what is installed (`bash .ci/run` installs torch too)
	@status=0; sh .ci/lint || status=1; sh .ci/test || status=1; exit $$status

lint:   ## format, lint and types
	@sh .ci/lint

test:   ## the tests alone
	@sh .ci/test

fmt: env
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

demo: env
	.venv/bin/graph-fuser demo

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
