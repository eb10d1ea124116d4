"""Whether lisabench's figures are right: four trials against what is known, and the report of them."""
