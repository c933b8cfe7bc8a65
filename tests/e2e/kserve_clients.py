"""KServe's asynchronous clients, each for one use from synchronous tests."""

import asyncio

from kserve import InferenceGRPCClient, InferenceRESTClient, RESTConfig


def rest(protocol, use):
    """Runs `use` with a REST client."""

    async def run():
        async with InferenceRESTClient(RESTConfig(protocol=protocol)) as client:
            return await use(client)

    return asyncio.run(run())


def rpc(address, use):
    """Runs `use` with a gRPC client, which does not hide failures by trying again."""

    async def run():
        async with InferenceGRPCClient(address, retries=0) as client:
            return await use(client)

    return asyncio.run(run())
