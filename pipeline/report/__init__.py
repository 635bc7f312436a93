"""`hnas report`: one HTML file about a store, a run, a search or a comparison, which opens offline in any browser.

The file holds numbers as JSON, a script that draws them with BokehJS, and tables that need no script. A content
security policy blocks all other scripts and all loading from elsewhere.
"""
