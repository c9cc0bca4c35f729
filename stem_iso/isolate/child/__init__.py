"""What runs inside an isolate. Imports nothing of the parent's side but the words both speak (`wire`, `job`, `seat`, `linux`)."""
