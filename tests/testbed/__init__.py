"""What several tests need and pytest need not inject: values, requests, processes, patience."""
