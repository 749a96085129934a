"""Aggregations of published code, kept for comparison and not as advice.

They average the factors A and B apart. A mean of products is not the product of means, so what
they give is wrong wherever devices differ; `strategies.aggregation.ExactMean` costs no more and is
exact. A stranger may read them and should copy none.
"""
