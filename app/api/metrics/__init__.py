"""What `/metrics` shows, in the text format of Prometheus.

`process` counts what happens in the API's processes; prometheus_client adds the processes of one gunicorn up, in files
that outlive a killed process. `service` reads at each scrape what is true of the whole service, from Redis: every API
that is scraped shows the same values of these.
"""
