"""The gptq_llama family's engine: that of the huggingface family over quantized weights."""

from dataclasses import replace

from app.config.params import Params
from app.config.settings import Config
from workers.engines.gptq.loading import load
from workers.engines.gptq.params import GptqParams
from workers.engines.gptq.source import check_location, locate
from workers.engines.transformers.engine import HuggingfaceEngine
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.loading.params import TransformersModelParams, TransformersSetupParams
from workers.models.adapter_source import check_adapter_sources
from workers.models.progress import ReportProgress


class GptqLlamaEngine(HuggingfaceEngine):
    """A model quantized with GPTQ or AWQ, on a CPU or on GPUs."""

    def __init__(self, config: Config, report: ReportProgress) -> None:
        self._gptq = GptqParams.read(config.model_params)
        self._gptq.show_devices(config.worker.gpus)
        super().__init__(replace(config, model_params=Params(self._gptq.others)), report)

    @classmethod
    def check(cls, config: Config) -> None:
        params = GptqParams.read(config.model_params)
        params.show_devices(config.worker.gpus)
        TransformersModelParams.read(params.others)
        TransformersSetupParams.read(config.setup_params)
        check_adapter_sources(config, single_file=False)
        check_location(config)

    def load(
        self, config: Config, setup: TransformersSetupParams, params: TransformersModelParams, report: ReportProgress
    ) -> LoadedModel:
        return load(locate(config, setup, report), setup, self._gptq, params, report)
