"""Programs that run inside an isolate and inside the inline host.

Of the parent's side they import only what both sides use: `wire`, `interfaces`, `shared_row`, `linux`.
"""
