"""Reading and relations of rows on Spark, through Spark Connect alone.

A session is handed in: nothing here imports pyspark, which is an extra.
"""
