# Needs python3 with its venv module; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
WORKDIR ?= runs/demo
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test lint benchmark conformance tensorboard clean

demo: $(VENV)/.installed
	$(RUN) -m apps.image_classification.train --data=digits --model=resnet20 --epochs=30 --batch_size=32 \
	    --keep=last --augmentation=shift --shift_pixels=1 --workdir=$(WORKDIR)
	$(RUN) -m apps.compress --workdir=$(WORKDIR) --width=0.5 \
	    --variants=quantize,distill,distill+prune+quantize --export=float32,int8

test: $(VENV)/.installed
	$(RUN) -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed
	$(RUN) -m ruff check .

conformance: $(VENV)/.installed
	$(RUN) -m pytest -m conformance
	$(RUN) -m tests.conformance.matrix

benchmark: $(VENV)/.installed
	$(RUN) -m benchmarks.run

tensorboard: $(VENV)/.installed
	$(RUN) -m tensorboard.main --logdir runs

# Installed anew whenever the dependencies change.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
