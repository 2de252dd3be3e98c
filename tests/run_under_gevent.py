"""The same tests as production runs the code: monkey-patched before anything else is imported.

`python -m tests.run_under_gevent [arguments of pytest]`
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - after the patch, like everything else

import pytest  # noqa: E402

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
