from importlib.util import find_spec

# `sh .ci/env zoo` installs torch.
collect_ignore_glob = [] if find_spec("torch") else ["test_fx_*.py"]
