"""The Grafana board and the alerts."""
