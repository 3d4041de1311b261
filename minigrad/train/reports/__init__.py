"""Reports: `report` assembles one from the files of a run. `log_reader` reads its log, `prediction_rows` its predictions, which
`prediction_summary` summarises with a `tally`; `html` renders the page."""
