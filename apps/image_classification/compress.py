"""`apps.compress` under the name of this application: python -m apps.image_classification.compress --workdir=…"""

import runpy

if __name__ == "__main__":
    runpy.run_module("apps.compress", run_name="__main__", alter_sys=True)
