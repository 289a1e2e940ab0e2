//! Arrays whose events are given back.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// The begin of NumPy's `PyArrayObject_fields`, which is part of its binary interface since version 1.
#[repr(C)]
#[allow(dead_code, reason = "the first fields give the others their places")]
struct ArrayFields {
    base: pyo3::ffi::PyObject,
    data: *mut u8,
    dimensions: std::ffi::c_int,
    lengths: *mut isize,
}

/// Sets the first length of an array to 0, so that it shows nothing any more.
#[pyfunction]
pub(crate) fn void(py: Python<'_>, array: &Bound<'_, PyAny>) -> PyResult<()> {
    let class = py.import("numpy")?.getattr("ndarray")?;
    if !array.get_type().is(&class) {
        return Err(PyTypeError::new_err("only arrays of numpy itself can be made void"));
    }
    let fields = array.as_ptr().cast::<ArrayFields>();
    // SAFETY: the object is an array of exactly numpy's type, so it begins with these fields. The GIL is held, so nobody
    // changes them.
    let dimensions = unsafe { (*fields).dimensions };
    // SAFETY: as above.
    let lengths = unsafe { (*fields).lengths };
    if dimensions >= 1 && !lengths.is_null() {
        // SAFETY: an array has as many lengths as dimensions. A shorter array shows less of the same memory.
        unsafe { *lengths = 0 };
    }
    Ok(())
}
