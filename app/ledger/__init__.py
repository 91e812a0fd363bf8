"""The ledger: what ended jobs have used, and the audit stream.

The scripts of `app/jobs/lua/` write both in the step that ends a job; this package only reads them.
"""
