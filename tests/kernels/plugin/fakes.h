// TensorRT's side of the plugin interface, as little of it as the test needs: an error recorder, a builder of expressions.
// And CHECK.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "plugin/tensorrt_interface.h"

inline int failures = 0;

#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);       \
      ++failures;                                                                 \
    }                                                                             \
  } while (false)

class ErrorRecorder final : public nvinfer1::IErrorRecorder {
 public:
  int32_t getNbErrors() const noexcept override { return static_cast<int32_t>(errors_.size()); }
  nvinfer1::ErrorCode getErrorCode(int32_t) const noexcept override { return nvinfer1::ErrorCode::kINVALID_ARGUMENT; }
  const char* getErrorDesc(int32_t index) const noexcept override { return errors_[index].c_str(); }
  bool hasOverflowed() const noexcept override { return false; }
  void clear() noexcept override { errors_.clear(); }
  bool reportError(nvinfer1::ErrorCode, const char* description) noexcept override {
    errors_.push_back(description);
    return false;
  }
  int32_t incRefCount() noexcept override { return 1; }
  int32_t decRefCount() noexcept override { return 1; }

 private:
  std::vector<std::string> errors_;
};

class ResourceContext final : public nvinfer1::IPluginResourceContext {
 public:
  explicit ResourceContext(nvinfer1::IErrorRecorder* recorder) : recorder_(recorder) {}
  void set_recorder(nvinfer1::IErrorRecorder* recorder) { recorder_ = recorder; }
  nvinfer1::IGpuAllocator* getGpuAllocator() const noexcept override { return nullptr; }
  nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept override { return recorder_; }

 private:
  nvinfer1::IErrorRecorder* recorder_;
};

// A dimension: a constant, or dynamic where it is -1.
class Dimension final : public nvinfer1::IDimensionExpr, public nvinfer1::apiv::VDimensionExpr {
 public:
  explicit Dimension(int64_t value) : value_(value) { mImpl = this; }
  ~Dimension() noexcept override = default;
  bool isConstant() const noexcept override { return value_ != -1; }
  int64_t getConstantValue() const noexcept override { return value_; }
  bool isSizeTensor() const noexcept override { return false; }

 private:
  int64_t value_;
};

// Makes constants; the plugin needs no operations.
class ExprBuilder final : public nvinfer1::IExprBuilder, public nvinfer1::apiv::VExprBuilder {
 public:
  ExprBuilder() { mImpl = this; }
  ~ExprBuilder() noexcept override = default;
  const nvinfer1::IDimensionExpr* constant(int64_t value) noexcept override {
    dimensions_.push_back(std::make_unique<Dimension>(value));
    return dimensions_.back().get();
  }
  const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation, const nvinfer1::IDimensionExpr&,
                                            const nvinfer1::IDimensionExpr&) noexcept override {
    return nullptr;
  }
  const nvinfer1::IDimensionExpr* declareSizeTensor(int32_t, const nvinfer1::IDimensionExpr&,
                                                    const nvinfer1::IDimensionExpr&) noexcept override {
    return nullptr;
  }

 private:
  std::vector<std::unique_ptr<Dimension>> dimensions_;
};
