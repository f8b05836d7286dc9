"""The deployment's own library: pure Python, importable without Airflow."""
