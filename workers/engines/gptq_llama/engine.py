"""The gptq_llama family's engine: that of the huggingface family over quantized weights."""

from dataclasses import replace

from app.contract.config import Config
from app.contract.config_params import Params
from workers.engines.base import ReportProgress
from workers.engines.gptq_llama.loading import load
from workers.engines.gptq_llama.params import GptqParams
from workers.engines.gptq_llama.source import locate
from workers.engines.huggingface.engine import HuggingfaceEngine
from workers.engines.huggingface.loading import LoadedModel
from workers.engines.huggingface.model_params import ModelParams
from workers.engines.huggingface.setup_params import SetupParams


class GptqLlamaEngine(HuggingfaceEngine):
    """A model quantized with GPTQ, on a CPU or on GPUs."""

    def __init__(self, config: Config, report: ReportProgress) -> None:
        self._gptq = GptqParams.read(config.model_params)
        self._gptq.show_devices(config.worker.gpus)
        super().__init__(replace(config, model_params=Params(self._gptq.others)), report)

    def load(self, config: Config, setup: SetupParams, params: ModelParams, report: ReportProgress) -> LoadedModel:
        return load(locate(config, setup, report), setup, self._gptq, params, report)
