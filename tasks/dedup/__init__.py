"""Tables contained in others: found, planned on, retired, restored, drawn. Where to look:

- **find**: `task` (the door) > `containment` (one scan, one commit) > `scan` (pairs that the logs leave open: `schema_graph`,
  `fingerprints`, `bounds`) > `settle` (`known`, `sketches`, `transitive`, `exact`) > `beyond` (`covers`, `rename_plan`,
  `renames`). Files are read by `frames` (`runs`, `sorting`); `remembered` keeps what saves reading next time (`profiles`,
  `logs`); `evidence` says what a containment proves; `edges` are the words.
- **why**: `why_task` > `why`.
- **plan**: `retention` (the solver) > `options` > `sources`, `prices`, `access` (`access_logs`); `savings` explains it.
- **act**: `retire` and `restore` (the doors) > `rebuild` > `finding`, `passes` > `recipes`, `terms`, `members`.
- **show**: `graph` > `collapse`, `layers`.
"""
