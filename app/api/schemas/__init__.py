"""What requests and answers look like: one marshmallow schema each, which validates and documents it at once."""
