"""Reports: `report` puts together what a run left behind, as `log_reader`, `prediction_rows` and `prediction_summary` read it; `html`
shows it."""
