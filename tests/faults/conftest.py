"""The helpers of this folder assert as well: pytest tells what went wrong in them too."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("fault_project", "fault_child")
