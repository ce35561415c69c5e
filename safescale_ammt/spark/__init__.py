"""Reading and relations of rows on Spark, through Spark Connect alone.

A session is handed in, and `session` opens it: nothing here imports pyspark, which is
an extra, before it is called.
"""
