"""Segments the object in one box in every frame of a video file or a camera; writes video.avi. Needs no display.

    python examples/video.py film.mp4 --box 240,120,330,200
    python examples/video.py 0 --box 240,120,330,200 --frames 100    # camera 0

The box is the same for all frames, so the camera and the object must stay where they are. This is not a tracker.
"""

import argparse

import cv2
import numpy as np

import samrt

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("source", help="a video file, or the number of a camera")
parser.add_argument("--box", required=True, help="X0,Y0,X1,Y1 in pixels of a frame")
parser.add_argument("--frames", type=int, help="stop after this many frames")
arguments = parser.parse_args()
box = [float(number) for number in arguments.box.split(",")]

capture = cv2.VideoCapture(int(arguments.source) if arguments.source.isdecimal() else arguments.source)
if not capture.isOpened():
    raise SystemExit(f"OpenCV cannot open {arguments.source}; check the file, or the number of the camera")
size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
writer = cv2.VideoWriter("video.avi", cv2.VideoWriter.fourcc(*"MJPG"), capture.get(cv2.CAP_PROP_FPS) or 25, size)

count = 0
with samrt.load() as model:
    while count != arguments.frames:
        found, frame = capture.read()
        if not found:
            break
        embedding = model.encode(frame, image_format="BGR")
        mask = model.predict(embedding, box=box, multimask_output=False).masks[0]
        frame[mask] = frame[mask] // 2 + np.array((0, 128, 0), np.uint8)
        writer.write(frame)
        count += 1
        print(f"frame {count}: {mask.sum()} pixels")
writer.release()
print(f"wrote video.avi: {count} frames")
