"""Reports: `report` puts together what a run left behind. `log_reader` reads its log, `prediction_rows` its predictions, of which
`prediction_summary` keeps a `tally`; `html` shows it all."""
