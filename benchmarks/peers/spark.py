"""Spark MLlib's ``pyspark.ml.clustering.GaussianMixture``, local.

It begins where it likes and computes in double precision.  Its rows come from Parquet and are
cached in memory, in a partition for each thread, before anything is timed.  The machine code of hot
loops is made in the first iterations: they are not timed where single iterations are, but are a
part of a whole fit.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.harness import Case, Outcome, Parameters, Ready, serve


def prepare(case: Case) -> Ready:
    """Load Spark, and write the rows as Parquet."""
    import pyspark
    from pyspark.ml.clustering import GaussianMixture

    frame = cached(session(case), case)

    def run(iterations: int) -> Outcome:
        return whole(1, maxIter=iterations, tol=0.0)

    def whole(seed: int, **options: Any) -> Outcome:
        algorithm = GaussianMixture(k=len(case.weights), seed=seed, **options)
        began = time.perf_counter()
        model = algorithm.fit(frame)
        seconds = time.perf_counter() - began

        def parameters() -> Parameters:
            found = model.gaussiansDF.collect()
            means = np.stack([each["mean"].toArray() for each in found])
            covariances = np.stack([each["cov"].toArray() for each in found])
            return np.array(model.weights), means, covariances

        return Outcome(seconds, model.summary.numIter, parameters)

    return Ready(run, pyspark.__version__, own_start=True, whole=whole)


def session(case: Case) -> Any:
    """Spark in this process and a local Java machine."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.memory": os.environ.get("SPARK_MEMORY", "6g"),
        "spark.local.dir": str(case.place / "spark"),
        "spark.sql.warehouse.dir": str(case.place / "warehouse"),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.default.parallelism": str(case.threads),
        "spark.sql.shuffle.partitions": str(case.threads),
    }
    builder = SparkSession.builder.master(f"local[{case.threads}]").appName("dgmm-benchmarks")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def cached(spark: Any, case: Case) -> Any:
    """The rows as a data frame in memory."""
    from pyspark.ml.functions import array_to_vector

    path = write(case, case.place / "rows.parquet")
    frame = spark.read.parquet(str(path)).select(array_to_vector("row").alias("features"))
    frame = frame.repartition(case.threads).cache()
    frame.count()
    return frame


def write(case: Case, path: Path) -> Path:
    """Write the rows as a column of lists."""
    import pyarrow
    import pyarrow.parquet

    count, n_features = case.rows.shape
    values = case.rows.astype(np.float64).ravel()
    ends = np.arange(0, (count + 1) * n_features, n_features)
    column = pyarrow.LargeListArray.from_arrays(ends, values)
    pyarrow.parquet.write_table(pyarrow.table({"row": column}), path, row_group_size=1 << 16)
    return path


if __name__ == "__main__":
    serve(prepare)
