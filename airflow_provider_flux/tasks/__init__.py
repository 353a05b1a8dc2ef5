"""What operators, sensor and trigger share, on Airflow's side."""
