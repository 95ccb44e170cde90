// The functions of libcuda.c by their names: CUDA's bindings ask for each of them.
CUresult cuGetProcAddress_v2(const char *, void **, int, uint64_t, int *);
static const struct { const char *name; void *function; } symbols[] = {
#define F(name) {#name, name}
    F(cuInit), F(cuDriverGetVersion), F(cuDeviceGetCount), F(cuDeviceGet), F(cuDeviceGetName), F(cuDeviceTotalMem),
    F(cuDeviceGetAttribute), F(cuDevicePrimaryCtxRetain), F(cuDevicePrimaryCtxRelease), F(cuCtxGetCurrent),
    F(cuCtxPushCurrent), F(cuCtxPopCurrent), F(cuCtxSetCurrent), F(cuCtxGetDevice), F(cuCtxGetStreamPriorityRange),
    F(cuMemAlloc), F(cuMemFree), F(cuMemAllocHost), F(cuMemFreeHost), F(cuMemcpyAsync), F(cuMemcpyDtoH),
    F(cuMemcpyHtoD), F(cuPointerGetAttribute), F(cuPointerGetAttributes), F(cuStreamCreateWithPriority),
    F(cuStreamCreate), F(cuStreamSynchronize), F(cuStreamDestroy), F(cuStreamGetCtx), F(cuStreamIsCapturing),
    F(cuEventCreate), F(cuEventDestroy), F(cuEventRecord), F(cuStreamWaitEvent), F(cuLaunchHostFunc),
    F(cuStreamBeginCapture), F(cuStreamEndCapture), F(cuGraphDestroy), F(cuGraphInstantiateWithFlags),
    F(cuGraphExecDestroy), F(cuGraphLaunch), F(cuGetErrorName), {"cuGetProcAddress", cuGetProcAddress_v2},
};
CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    (void)version, (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (!strcmp(symbols[i].name, name)) *function = symbols[i].function;
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : 500;
}
