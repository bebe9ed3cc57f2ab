/* The functions that TensorRT's Python bindings look for when they are imported. None of them is
   ever called: the classes that would call them are replaced. */
#define NEVER(name) void *name(void) { return 0; }
NEVER(createInferBuilder_INTERNAL)
NEVER(createInferRefitter_INTERNAL)
NEVER(createInferRuntime_INTERNAL)
NEVER(createNvOnnxParser_INTERNAL)
NEVER(createNvOnnxParserRefitter_INTERNAL)
NEVER(getBuilderPluginRegistry)
NEVER(getNvOnnxParserVersion)
NEVER(getPluginRegistry)
NEVER(initLibNvInferPlugins)
int getInferLibVersion(void) { return PRETEND_VERSION; }
