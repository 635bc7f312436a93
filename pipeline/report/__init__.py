"""`hnas report`: a store, a run, a search or a comparison as one HTML file that opens offline in any browser.

The file holds numbers as JSON, a script that draws them with BokehJS, and tables that need no script. A content
security policy lets nothing else run and nothing load from elsewhere.
"""
